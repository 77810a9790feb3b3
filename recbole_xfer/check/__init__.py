"""Checks domains before training: what their files contain, what is suspicious, what they share, who can use them."""
