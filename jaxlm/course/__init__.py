"""Seven exercises on the ladder of models, and the laws that judge them. Read README.md first."""
