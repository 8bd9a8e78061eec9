"""Writing products, pictures and embeddings: batches, bulk loads, the record of an ingest."""
