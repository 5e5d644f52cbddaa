#!/usr/bin/env bash
# Tests the release for krew: fills the manifest with the sums of the archives, validates it
# with krew's own validator, installs the plugin with krew from each archive, and runs the
# plugin through kubectl.
#
#   install.sh VERSION DIST TOOLS KUBECTL
#
# VERSION is the version of the archives, with its v. DIST is the folder with the archives and
# checksums.txt. TOOLS is the folder with krew and validate-krew-manifest. The script writes
# only to the checkout and to a temporary folder.
set -euo pipefail
version=$1 dist=$2 tools=$3 kubectl=$4
manifest=$(dirname "$0")/oke-sign.yaml

awk -v version="$version" '
	NR == FNR { sum[$2] = $1; next }
	{
		gsub(/@version@/, version)
		while (match($0, /@[^@]+@/)) {
			file = substr($0, RSTART + 1, RLENGTH - 2)
			if (!(file in sum)) { print "install.sh: checksums.txt has no sum of " file > "/dev/stderr"; exit 1 }
			$0 = substr($0, 1, RSTART - 1) sum[file] substr($0, RSTART + RLENGTH)
		}
		if ($0 !~ /^#/) print
	}' "$dist/checksums.txt" "$manifest.in" >"$manifest.new"
mv "$manifest.new" "$manifest"

"$tools/validate-krew-manifest" -skip-install -manifest "$manifest"

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
for archive in "$dist"/kubectl-oke_sign_*.tar.gz "$dist"/kubectl-oke_sign_*.zip; do
	name=$(basename "$archive")
	platform=${name#kubectl-oke_sign_} platform=${platform%.tar.gz} platform=${platform%.zip}
	KREW_ROOT=$temp/$platform KREW_OS=${platform%_*} KREW_ARCH=${platform#*_} \
		"$tools/krew" install --manifest "$manifest" --archive "$archive" >"$temp/log" 2>&1 || { cat "$temp/log" >&2; exit 1; }
	ls "$temp/$platform/store/oke-sign/$version/LICENSE" >/dev/null
	echo "installed from $name"
done

here=$(go env GOHOSTOS)_$(go env GOHOSTARCH)
export KREW_ROOT=$temp/$here PATH=$temp/$here/bin:$PATH
said=$("$kubectl" oke-sign version -o name)
if [ "$said" != "$version" ]; then
	echo "install.sh: kubectl oke-sign version says $said, want $version" >&2
	exit 1
fi
"$kubectl" oke-sign version
"$kubectl" oke-sign --help >/dev/null
