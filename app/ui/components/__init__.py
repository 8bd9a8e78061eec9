"""The parts that pages draw: product cards, dialogs, charts, tables."""
