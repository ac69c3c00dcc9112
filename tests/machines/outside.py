"""ncps on a machine that has an address of the internet: `python -m tests.machines.outside serve`.

No machine of the tests has such an address, so 127.0.0.2 counts as one.
"""

from __future__ import annotations

import sys
from typing import Final

from ncps.__main__ import main
from ncps.upstream import reach

ADDRESS: Final = "127.0.0.2"

if __name__ == "__main__":
    right = reach.is_internal
    reach.is_internal = lambda text: text != ADDRESS and right(text)
    sys.exit(main())
