"""Write a beton with stock ffcv's workers started one way: `python stock_start_method.py spawn PATH`."""

import multiprocessing
import sys

from stock_writing import NUM_IMAGES, Images, write_to


def main() -> None:
    multiprocessing.set_start_method(sys.argv[1])
    write_to(sys.argv[2], Images())
    sys.stdout.write(f"{NUM_IMAGES}\n")


if __name__ == "__main__":
    main()
