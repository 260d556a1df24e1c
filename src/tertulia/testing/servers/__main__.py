"""Run servers: both in the foreground, or one for a test run.

python -m tertulia.testing.servers
python -m tertulia.testing.servers KIND FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from tertulia.testing.servers.shared import Kind, foreground, keep

if len(sys.argv) > 1:
    keep(cast("Kind", sys.argv[1]), Path(sys.argv[2]))
else:
    foreground()
