"""All tests check graphs after every pass, and leave no compiled code behind."""

import os

os.environ.setdefault("PIERIAN_VERIFY", "1")
