"""One query in, one answer out: validate, encode, plan, retrieve, deduplicate, page, explain."""
