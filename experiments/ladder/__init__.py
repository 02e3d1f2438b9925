"""The ladder of models, trained and compared on one text."""
