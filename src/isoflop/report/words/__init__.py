"""What a report says in sentences: the answer, its doubts, and the checklist."""
