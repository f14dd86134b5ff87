# Sourced by quickstart.sh and run_tests.sh: finds a suitable Python and makes .venv with the packages of a requirements
# file.  Afterwards $PY is the interpreter to use.  NO_VENV=1 uses the active Python and its packages.

# Modules that every script needs (gdown and safetensors are imported where they are used).
CORE="torch torchvision numpy scipy sklearn tensorboardX PIL cv2 tqdm yaml matplotlib"

MIN_MINOR=11        # Python 3.11: hashlib.file_digest
MAX_MINOR=13        # newest Python with wheels of every requirement
NEEDED_MIB=9000     # PyTorch with its CUDA libraries unpacks to about 6 GB, and pip keeps the archive meanwhile

stop() { echo "error: $*" >&2; exit 1; }

python_fits() {
    "$1" -c "import sys; sys.exit(not (3, $MIN_MINOR) <= sys.version_info[:2] <= (3, $MAX_MINOR))" 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        python_fits "$PYTHON" || stop "PYTHON=$PYTHON is not a Python 3.$MIN_MINOR to 3.$MAX_MINOR"
        PY=$PYTHON
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python; do
        if python_fits "$candidate"; then PY=$candidate; return; fi
    done
    stop "need Python 3.$MIN_MINOR to 3.$MAX_MINOR; found $(python3 --version 2>&1 || echo none)." \
         "Install one, or name it: PYTHON=/path/to/python3.12 bash $0"
}

check_disk() {
    free=$(df -Pk . | awk 'END {print int($(NF - 2) / 1024)}')
    [ "$free" -ge "$NEEDED_MIB" ] || stop "the packages need about $NEEDED_MIB MiB of disk; $(pwd) has $free MiB free"
}

# prepare_environment REQUIREMENTS_FILE MODULE...: makes .venv with the packages of the file; requirements files that did
# not change since the last installation cost nothing.  With NO_VENV=1 it only checks that the modules are there.
prepare_environment() {
    if [ "${NO_VENV:-0}" = 1 ]; then
        find_python
        absent=$("$PY" -c 'import importlib.util as i, sys; print(*(m for m in sys.argv[1:] if not i.find_spec(m)))' "${@:2}")
        [ -z "$absent" ] || stop "$PY has no $absent; install the packages: $PY -m pip install -r $1"
        echo "using $("$PY" --version) at $(command -v "$PY"), nothing installed"
        return
    fi
    stamp=.venv/installed-$1
    if [ -x .venv/bin/python ] && ! python_fits .venv/bin/python; then
        stop ".venv holds $(.venv/bin/python --version 2>&1 || echo "a broken Python"); remove it and run this again"
    fi
    if [ -x .venv/bin/python ] && cat requirements*.txt | cmp -s - "$stamp"; then
        PY=.venv/bin/python
        echo "environment: .venv is up to date"
        return
    fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then  # absent, or left half made
        find_python
        check_disk
        echo "environment: making .venv with $("$PY" --version)"
        "$PY" -m venv --clear .venv || stop "could not make .venv (on Debian and Ubuntu: apt install python3-venv)"
    fi
    PY=.venv/bin/python
    echo "environment: installing $1 (a few minutes the first time)"
    "$PY" -m pip install --quiet --disable-pip-version-check -r "$1" || stop "pip could not install $1"
    cat requirements*.txt > "$stamp"
}
