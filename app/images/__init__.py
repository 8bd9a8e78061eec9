"""From bytes to an upright RGB picture or a refusal; opens pictures and fetches URLs, alone."""
