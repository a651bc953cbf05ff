#!/bin/sh
# Builds the tiny kernel from guest/tiny/*.S with binutils' as and ld, always to the same bytes.
# Usage: hack/tiny/build.sh [OUTPUT]     (default: guest/tiny/tiny.elf, the committed file that Go embeds)
set -eu

source=$(cd "$(dirname "$0")/../../guest/tiny" && pwd)
output=${1:-$source/tiny.elf}
for tool in as ld; do
    command -v $tool >/dev/null || { echo "build.sh: no $tool: install binutils" >&2; exit 1; }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

objects=
for file in entry main param memory acpi apic trap work serial power; do
    as --64 --fatal-warnings -I "$source" -o "$scratch/$file.o" "$source/$file.S"
    objects="$objects $scratch/$file.o"
done
# -n: segments need no page alignment in the file, which keeps it small; -s: no symbols.
ld -n -s --build-id=none -T "$source/tiny.ld" -o "$scratch/tiny.elf" $objects
mv "$scratch/tiny.elf" "$output"
chmod 644 "$output"
