"""Next-token distributions, and sampling from them."""
