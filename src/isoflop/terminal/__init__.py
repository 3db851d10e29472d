"""What the terminal shows of each answer: a screen of sentences and tables, by rich."""
