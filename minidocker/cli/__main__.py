"""Where the `minidocker` command enters: `python -ISE <this file> ARGUMENTS`.

Rules   - the interpreter starts isolated and without site (-ISE), so the package is found from this place.
        - everything else is imported, so that it comes from compiled files; this one is compiled at each start.
"""

import sys

# Appended, so that no module of ours can stand in for one of the interpreter's.
sys.path.append(__file__.rpartition("/minidocker/")[0])

from minidocker.cli.main import main

main()
