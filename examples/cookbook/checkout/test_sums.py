"""What ci.py builds in its example."""

import unittest


class Sums(unittest.TestCase):
    def test_two_and_two(self) -> None:
        self.assertEqual(2 + 2, 4)
