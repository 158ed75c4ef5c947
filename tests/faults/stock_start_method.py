"""Write a beton with stock ffcv: `python stock_start_method.py fork|spawn|forkserver PATH`."""

import multiprocessing
import sys

from stock_writing import NUM_IMAGES, Images, write_to


def main() -> None:
    multiprocessing.set_start_method(sys.argv[1], force=True)  # an import has set one
    write_to(sys.argv[2], Images())
    sys.stdout.write(f"{NUM_IMAGES}\n")


if __name__ == "__main__":
    main()
