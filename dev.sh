#!/usr/bin/env bash
# One door to everything a developer does here. Installs what is missing, then hands over to Python.
set -euo pipefail

readonly PYTHONS=(python3 python3.11 python3.12 python3.13 python3.14)
readonly BASE=(ca-certificates venv)
readonly HOSTS=(docker etcd etcdctl ip nft iptables conntrack busybox docker-registry ps nsenter)

help() {
  cat <<'TEXT'
usage: ./dev.sh VERB [ARGUMENTS]

  demo    a cluster on this machine, a Compose project on it, failures, and the end (--keep)
  test    run every layer of tests as CI does (--fast, --layer NAME, -- PYTEST ARGUMENTS)
  lint    format and mend what can be mended, then run the static layers
  proto   generate the code of the wire contract, then check its rules
  bench   run benchmarks (NAME...), or list them
  lab     hosts with engines of their own: up N, status, exec, cut, heal, power-off, boot, down
  shell   a shell, or a command, in the virtual environment
  help    this text

Each installs what it needs: Debian packages (as root or with sudo) and a virtual environment.
TEXT
}

die() {
  echo "dev.sh: $*" >&2
  exit 1
}

say() { echo "dev.sh: $*" >&2; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    die "needs root for: $*. Run it as root, or install sudo."
  fi
}

# ---- Debian packages ------------------------------------------------------------------------

is_installed() {
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

has_tool() {
  case $1 in
    ca-certificates) [ -s "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ] ;;
    docker) command -v docker >/dev/null && command -v dockerd >/dev/null ;;
    venv) is_recent .venv/bin/python || "$(find_python)" -c 'import ensurepip, venv' 2>/dev/null ;;
    busybox) command -v busybox >/dev/null && ! ldd "$(command -v busybox)" >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

# Prints the packages that bring a tool here; names differ between Debian and Ubuntu releases.
packages_of() {
  case $1 in
    docker) first_known docker.io; first_known docker-cli || true ;;
    etcd) first_known etcd-server etcd ;;
    etcdctl) first_known etcd-client etcd ;;
    venv) "$(find_python)" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])' ;;
    ip) echo iproute2 ;;
    nft) echo nftables ;;
    busybox) echo busybox-static ;;
    ps) echo procps ;;
    nsenter) echo util-linux ;;
    *) echo "$1" ;;
  esac
}

first_known() {
  local name
  for name in "$@"; do
    if apt-cache show --no-all-versions "$name" >/dev/null 2>&1; then
      echo "$name"
      return
    fi
  done
  return 1
}

# Installs the packages of the tools that are missing. No service is started or enabled by it.
need_tools() {
  local tool missing=() names=() name
  for tool in "$@"; do
    has_tool "$tool" || missing+=("$tool")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}. Install them; only apt is known here."
  say "installing Debian packages for: ${missing[*]}"
  apt_get update
  for tool in "${missing[@]}"; do
    while read -r name; do
      is_installed "$name" || names+=("$name")
    done < <(packages_of "$tool" || say "no package of this release brings $tool")
  done
  [ ${#names[@]} -gt 0 ] || die "found no package for: ${missing[*]}"
  install_packages "${names[@]}"
  for tool in "${missing[@]}"; do
    has_tool "$tool" || die "$tool is still missing after installing: ${names[*]}"
  done
}

# Says nothing unless it fails.
apt_get() {
  local log=.dev/apt.log
  mkdir -p .dev
  if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 \
    -o DPkg::Lock::Timeout=300 "$@" </dev/null >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    die "apt-get $* failed"
  fi
}

# Whether the package scripts are told, by a file of ours, to start nothing.
is_policy_ours=''

install_packages() {
  local policy=/usr/sbin/policy-rc.d name
  if [ ! -e "$policy" ]; then
    is_policy_ours=yes
    trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    # shellcheck disable=SC2016 # the inner shell expands it
    as_root sh -c 'printf "#!/bin/sh\nexit 101\n" >"$0" && chmod 755 "$0"' "$policy"
  fi
  apt_get install --no-install-recommends "$@"
  if [ -n "$is_policy_ours" ]; then
    as_root rm -f "$policy"
    trap - EXIT
    is_policy_ours=''
  fi
  if [ -d /run/systemd/system ]; then
    for name in "$@"; do # the tests start their own; at boot these would take ports and rules
      case $name in
        docker.io) as_root systemctl disable -q docker.service docker.socket || true ;;
        docker-registry) as_root systemctl disable -q docker-registry || true ;;
        etcd | etcd-server) as_root systemctl disable -q etcd || true ;;
      esac
    done
  fi
}

# ---- Python ---------------------------------------------------------------------------------

is_recent() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local name
  for name in ${DRAY_PYTHON:+"$DRAY_PYTHON"} "${PYTHONS[@]}"; do
    if is_recent "$name"; then
      command -v "$name"
      return
    fi
  done
  die "needs Python 3.11 or later; found: $(python3 --version 2>&1 || echo none)." \
    "Install one (Ubuntu 22.04: apt install python3.11 python3.11-venv) or set DRAY_PYTHON."
}

# Makes .venv exactly what requirements.lock says, with this tree installed in place.
need_environment() {
  local stamp
  stamp="$(environment_key)"
  [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ] || return 0
  mkdir -p .dev
  exec 9>.dev/setup.lock
  flock -w 900 9 || die "another dev.sh has been setting up for 15 minutes"
  if [ "$(cat .venv/.stamp 2>/dev/null)" != "$stamp" ]; then
    make_environment
    environment_key >.venv/.stamp
  fi
  exec 9>&-
}

# What .venv was made from: its Python, its place, the lock and the project table.
environment_key() {
  echo "$here $(readlink -f .venv/bin/python || true) $(.venv/bin/python -V 2>&1 || true)" \
    "$(cat requirements.lock pyproject.toml | sha256sum)"
}

make_environment() {
  local python first=.dev/first.lock version
  if [ -n "${DRAY_PYTHON:-}" ] || ! is_recent .venv/bin/python; then
    python=$(find_python)
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv || die "$python cannot make a virtual environment"
  fi
  # First what installs: uv, and setuptools for the one dependency that comes as source only. It is
  # built with the locked setuptools, so that nothing unlocked runs here.
  awk '/^(uv|setuptools)==/ {on = 1} on {print} !/\\$/ {on = 0}' requirements.lock >"$first"
  version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$first")
  if [[ "$(.venv/bin/uv --version 2>/dev/null)" != "uv $version"* ]]; then
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
      -r "$first" >&2 || die "pip could not install uv"
  fi
  say "installing what requirements.lock says"
  .venv/bin/uv pip sync -q --python .venv/bin/python --require-hashes --no-build-isolation \
    requirements.lock >&2 || die "uv could not install requirements.lock"
  .venv/bin/uv pip install -q --python .venv/bin/python --offline --no-deps --no-build-isolation \
    -e . >&2 || die "uv could not install this tree"
}

# A home and a cache for pip and uv, also where there is no HOME or it cannot be written.
need_home() {
  if [ ! -w "${HOME:-/nonexistent}" ]; then
    mkdir -p .dev/home
    export HOME="$here/.dev/home" XDG_CACHE_HOME="$here/.dev/home/.cache"
  fi
  [ -z "${PIP_INDEX_URL:-}" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"
  export UV_LINK_MODE="${UV_LINK_MODE:-copy}" UV_PYTHON_DOWNLOADS=never
}

ready() {
  is_recent .venv/bin/python || find_python >/dev/null # or say now that there is none
  need_tools "${BASE[@]}" "$@"
  need_environment
}

# Replaces this shell by a command that may need root.
run_as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    exec "$@"
  fi
  command -v sudo >/dev/null || die "needs root for: $*. Run it as root, or install sudo."
  # Root leaves no compiled files in the tree, which its owner could not replace.
  exec sudo --preserve-env=HOME,PATH,CI,TERM PYTHONDONTWRITEBYTECODE=1 "$@"
}

# ---- verbs ----------------------------------------------------------------------------------

verb_demo() {
  ready "${HOSTS[@]}"
  run_as_root "$python_bin" -m tests.demo "$@"
}

verb_test() {
  ready "${HOSTS[@]}" shellcheck
  [ "$(id -u)" -eq 0 ] || sudo -v || die "the layers that make hosts need root"
  exec "$python_bin" -m tests.layers "$@"
}

verb_lint() {
  ready shellcheck
  .venv/bin/ruff check --quiet --fix . || true # what is left is reported below
  .venv/bin/ruff format --quiet .
  exec "$python_bin" -m tests.layers --static "$@"
}

verb_proto() {
  ready
  "$python_bin" proto/generate.py "$@"
  exec "$python_bin" proto/generate.py --check
}

verb_bench() {
  ready "${HOSTS[@]}"
  if [ $# -eq 0 ]; then
    awk -F ' [|] |[|] ' '/^[|] `/ {gsub(/`/, ""); print $2 "  " $3}' benchmarks/README.md
    return
  fi
  [ -e "benchmarks/$1.py" ] || [ -e "benchmarks/$1/__main__.py" ] ||
    die "there is no benchmark $1; ./dev.sh bench lists them"
  run_as_root "$python_bin" -m "benchmarks.$1" "${@:2}"
}

verb_lab() {
  ready "${HOSTS[@]}"
  run_as_root "$python_bin" -m tests.lab "$@"
}

verb_shell() {
  ready
  export PATH="$here/.venv/bin:$PATH" VIRTUAL_ENV="$here/.venv"
  if [ $# -eq 0 ]; then
    exec "${SHELL:-/bin/bash}"
  fi
  exec "$@"
}

main() {
  { : <&0; } 2>/dev/null || exec </dev/null
  here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
  cd "$here"
  python_bin="$here/.venv/bin/python"
  export PATH="${PATH:-/usr/bin:/bin}:/usr/sbin:/sbin" PIP_DISABLE_PIP_VERSION_CHECK=1
  local verb=${1:-help}
  [ $# -eq 0 ] || shift
  case $verb in
    demo | test | lint | proto | bench | lab | shell)
      need_home
      "verb_$verb" "$@"
      ;;
    help | -h | --help) help ;;
    *)
      help >&2
      die "there is no verb $verb"
      ;;
  esac
}

main "$@"
