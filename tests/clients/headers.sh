#!/usr/bin/env bash
# Headers that the wheels of llama-cpp-python and onnxruntime leave out, into the folder given: headers.sh PYTHON FOLDER.
# llama.cpp's come from the sources of the very version that is installed; onnxruntime's from Debian, whose older header a
# newer library serves.
set -euo pipefail
python=$1 folder=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$("$python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
"$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python -d "$work" "llama-cpp-python==$version"
tar -xzf "$work"/llama_cpp_python-*.tar.gz -C "$work" --wildcards '*/llama.cpp/include/*.h' '*/llama.cpp/ggml/include/*.h'
mkdir -p "$folder"
cp "$work"/*/vendor/llama.cpp/include/*.h "$work"/*/vendor/llama.cpp/ggml/include/*.h "$folder"

if ! command -v apt-get >/dev/null; then
    echo "no apt-get: put onnxruntime_c_api.h of a release of onnxruntime into $folder" >&2
    exit 0
fi
apt=(apt-get -qq -o APT::Sandbox::User=root)
if ! apt-cache show libonnxruntime-dev >/dev/null 2>&1; then
    # Debian 12 has none: the next release's list is read beside the system's own, which stays as it is.
    mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
    sed 's/bookworm\b/trixie/; s/^Suites: trixie .*/Suites: trixie/; /^$/,$d' /etc/apt/sources.list.d/debian.sources \
        >"$work/debian.sources"
    apt+=(-o Dir::Etc::sourcelist="$work/debian.sources" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
          -o Dir::Cache="$work/cache")
    "${apt[@]}" update
fi
(cd "$work" && "${apt[@]}" download libonnxruntime-dev)
dpkg -x "$work"/libonnxruntime-dev_*.deb "$work/package"
cp "$work"/package/usr/include/onnxruntime/*.h "$folder"
