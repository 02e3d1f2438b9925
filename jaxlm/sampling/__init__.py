"""Next-token distributions, and generation of text from them."""
