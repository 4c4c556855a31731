"""Local features: the second way to find an image, after an edit that changes its signature.

`extraction` finds them in pixels, `words` names them, `features` stores them, and `geometry` verifies that two images
share them in the same arrangement.
"""
