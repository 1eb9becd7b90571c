"""`python -m src`: tries the service out in this folder. Input is in ./input, the token in SECRET_API_TOKEN."""

import sys

from runkeys.runtime import main

sys.exit(main(["src.program:run"]))
