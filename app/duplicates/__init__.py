"""Which products are the same: normalisation, rules, verdicts, the review queue."""
