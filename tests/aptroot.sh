#!/bin/bash
# aptroot.sh SUITE DEST PACKAGE...: fetch packages and all they depend on from another Debian suite and
# unpack them into DEST, beside the system and without touching it. Programs are then run through DEST's
# own loader. Needs apt and Debian's keyring, no root. DEST/.complete is written last; where it names the
# same suite and packages there is nothing to do.
set -euo pipefail

suite=$1
dest=$2
shift 2
if [[ -f $dest/.complete && $(<"$dest/.complete") == "$suite $*" ]]; then
    exit 0
fi
rm -rf "$dest"
mkdir -p "$dest"
dest=$(realpath "$dest")
work=$dest/.apt
mkdir -p "$work"/{lists/partial,cache/archives/partial,etc}
: >"$work/status"

uri=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${uri:-http://deb.debian.org/debian} $suite main" \
    >"$work/etc/sources.list"
options=(
    -o Dir::Etc::SourceList="$work/etc/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null
    -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
    -o Acquire::Check-Valid-Until=false -o Acquire::Languages=none -o Acquire::Retries=3
    -o APT::Install-Recommends=false -o Debug::NoLocking=1
)
if [[ $(id -u) == 0 ]]; then
    options+=(-o APT::Sandbox::User=root)
fi
apt-get "${options[@]}" update -qq >&2
apt-get "${options[@]}" install -y -qq --download-only "$@" >&2
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" |
        tar -x -C "$dest" --skip-old-files --keep-directory-symlink --no-same-owner
done
rm -rf "$work"
echo "$suite $*" >"$dest/.complete"
