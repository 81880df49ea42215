#!/usr/bin/env bash
# Builds and checks the files of the npm package: linux on x64 and arm64, with glibc and musl. All of
# them or none. One file serves every Node from 20 on, and every glibc from 2.28 on, the oldest that
# Node 20 runs on itself.
set -euo pipefail
cd "$(dirname "$0")"

readonly GLIBC_MAX=2.28
musl=${FRAMEPUMP_MUSL_DIR:-/opt/framepump-musl}
headers=../node_modules/node-api-headers
# Each build has all functions in one unit. No atomics of libgcc: they ask glibc what the CPU has.
declare -A options=([x86_64]='' [aarch64]='-mno-outline-atomics')
declare -A names=([x86_64]=x64 [aarch64]=arm64)
declare -A machines=([x86_64]='Advanced Micro Devices X86-64' [aarch64]=AArch64)

for tool in {x86_64,aarch64}-linux-gnu-gcc "$musl/complete" "$headers/package.json"; do
  command -v "$tool" >/dev/null || [ -f "$tool" ] || {
    echo "framepump: $tool is missing; install what the package is built with: npm ci && bash native-shim/setup-debian.sh" >&2
    exit 1
  }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # machine file option...
  local machine=$1 file=$2
  shift 2
  mkdir -p "$(dirname "$file")"
  # shellcheck disable=SC2086 # the options of a machine are words
  "$machine-linux-gnu-gcc" @flags -Wall -Wextra -Werror -flto -s ${options[$machine]} \
    "-I$headers/include" -o "$file" src/*.c "$@"
}

musl_options() { # machine
  printf '%s\n' -nostdinc -isystem "$("$1-linux-gnu-gcc" -print-file-name=include)" \
    -isystem "$musl/usr/include/$1-linux-musl" -isystem "$musl/usr/include" \
    -isystem "$musl/usr/include/$1-linux-gnu" -nostdlib "-L$musl/lib/$1-linux-musl" -lc
}

fail() {
  echo "framepump: $1" >&2
  exit 1
}

# What a file needs of the machine that it is loaded on.
check() { # machine libc file
  local machine=$1 libc=$2 file=$3 name needed wanted napi
  name=linux-${names[$machine]}/$libc
  readelf -hW "$file" | grep -q "Machine: *${machines[$machine]}" || fail "$name: is not for $machine"
  needed=$(readelf -dW "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
  [ "$libc" = glibc ] && wanted=libc.so.6 || wanted=libc.so
  [ "$needed" = "$wanted" ] || fail "$name: needs the libraries $needed"
  if readelf -dW "$file" | grep -E 'TEXTREL|RPATH|RUNPATH'; then fail "$name: has the above"; fi
  readelf -lW "$file" | grep GNU_STACK | grep -q 'RW ' || fail "$name: has a stack that can be executed"
  [ "$(nm -D --defined-only "$file" | awk '{ print $3 }' | tr '\n' ' ')" = \
    'napi_register_module_v1 node_api_module_get_api_version_v1 ' ] ||
    fail "$name: exports something else than a module of Node-API"

  nm -D --undefined-only "$file" | awk '$1 == "U" { print $2 }' >"$work/undefined"
  # Functions of Node-API that Node 20 has under the version that the module asks for.
  napi=$(node -p "const { v8 } = require('$headers').symbols; [...v8.js_native_api_symbols, ...v8.node_api_symbols].join('\n')")
  grep '^napi_' "$work/undefined" | grep -vxF "$napi" && fail "$name: the above are not in Node-API 8"
  grep -v '^napi_' "$work/undefined" >"$work/libc"
  if [ "$libc" = glibc ]; then
    grep -v '@GLIBC_' "$work/libc" && fail "$name: the above are not glibc's"
    newest=$(sed 's/.*@GLIBC_//' "$work/libc" | sort -V | tail -1)
    [ "$(printf '%s\n' "$newest" "$GLIBC_MAX" | sort -V | tail -1)" = "$GLIBC_MAX" ] ||
      fail "$name: needs glibc $newest: $(grep "@GLIBC_$newest" "$work/libc" | tr '\n' ' ')"
  else
    nm -D --defined-only "$musl/lib/$machine-linux-musl/libc.so" | awk '{ print $3 }' >"$work/musl"
    grep -vxFf "$work/musl" "$work/libc" && fail "$name: the above are not musl's"
    newest=any
  fi
  echo "$name: $(stat -c %s "$file") bytes, $libc $newest"
}

for machine in x86_64 aarch64; do
  directory=$work/prebuilds/linux-${names[$machine]}
  compile "$machine" "$directory/framepump.glibc.node"
  check "$machine" glibc "$directory/framepump.glibc.node"
  mapfile -t words < <(musl_options "$machine")
  compile "$machine" "$directory/framepump.musl.node" "${words[@]}"
  check "$machine" musl "$directory/framepump.musl.node"
done
chmod 644 "$work"/prebuilds/*/*

# The one for this machine runs.
node -e "
  const shim = { exports: {} }
  process.dlopen(shim, process.argv[1])
  const { windowMap, clockGettime } = shim.exports
  if (clockGettime(windowMap(-1, 4096, 0, 0), 0) !== 0) process.exit(1)
" "$work/prebuilds/linux-$(node -p process.arch)/framepump.glibc.node" || fail "the file for this machine does not run"

rm -rf prebuilds
cp -r "$work/prebuilds" prebuilds
