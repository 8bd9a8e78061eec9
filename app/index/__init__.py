"""The FAISS index: read embeddings, build, measure recall, publish, store and open files."""
