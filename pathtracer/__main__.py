"""python -m pathtracer"""

import sys

from pathtracer.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
