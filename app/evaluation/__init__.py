"""How good search is: labelled queries, recall audits, planner tuning, calibration of distances."""
