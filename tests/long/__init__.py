"""Tests of whole daemons that take long: `python -m tests long`; `python -m tests` omits them."""
