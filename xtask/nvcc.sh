#!/bin/sh
# Stands in for NVIDIA's compiler where the code runs on the simulated GPU. What would be a compiled module becomes a
# line that names its source: the simulated driver knows the kernels of each source by their names.
set -eu

output=
folder=.
source=
kind=module
while [ $# -gt 0 ]; do
    case $1 in
    --version)
        # Build scripts read the fourth line.
        echo "nvcc: stand-in for the simulated GPU"
        echo
        echo
        echo "Cuda compilation tools, release 13.0, V13.0.0"
        exit 0
        ;;
    --list-gpu-code)
        echo sm_90
        exit 0
        ;;
    --lib) kind=archive ;;
    -c) kind=object ;;
    -o)
        output=$2
        shift
        ;;
    --output-directory)
        folder=$2
        shift
        ;;
    *.cu) source=$1 ;;
    esac
    shift
done

name=$(basename "$source" .cu)
[ -n "$output" ] || output=$folder/$name.ptx
case $kind in
module) printf 'simulated module %s\n' "$name" >"$output" ;;
object) : >"$output" ;;
# An archive without members: what programs link to from it, the simulated libraries have.
archive) printf '!<arch>\n' >"$output" ;;
esac
