"""Answers: found in a text, compared, voted on."""
