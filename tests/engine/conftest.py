"""What the tests of images share with those of the registry."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "registry")]      # image_desk.py, lying_registry.py
