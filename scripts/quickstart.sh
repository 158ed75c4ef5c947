#!/usr/bin/env bash
# From images to a trained model and its report; a second run skips what is done.
#
#   scripts/quickstart.sh            on the built-in sample (handwritten digits in photo-like frames)
#   scripts/quickstart.sh FOLDER     on your own images: one folder per class, or train/ and val/ of such
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PYTHON=.venv/bin/python
images=${1:-}
options=()
if [ -z "$images" ]; then
    images=samples/digits
    betons=betons/quickstart
    [ -d "$images" ] || "$PYTHON" -m ffvit sample "$images"
else
    name=quickstart-$(basename "$images")
    betons=betons/$name
    # Unlike digits, most things are the same when mirrored.
    options=(--data.flip=true "--run.folder=runs/$name")
    options+=("--data.train_path=$betons/train.beton" "--data.val_path=$betons/val.beton")
fi

if ! ls "$betons"/{train.beton,val.beton,source.txt} >/dev/null 2>&1; then
    "$PYTHON" write_imagenet.py "--data_dir=$images" "--out_dir=$betons"
    realpath "$images" >"$betons/source.txt"
elif [ "$(realpath "$images")" != "$(cat "$betons/source.txt")" ]; then
    echo "error: $betons: expected betons of $images, but they hold $(cat "$betons/source.txt");" \
        "remove them and the run in runs/$(basename "$betons"), or rename your folder" >&2
    exit 2
fi
exec "$PYTHON" train_imagenet.py --config ff_configs/quickstart.yaml "${options[@]}"
