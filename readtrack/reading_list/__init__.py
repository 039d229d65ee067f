"""The reading list: papers.yaml, the reader's journal, and identifiers of papers."""
