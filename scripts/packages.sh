#!/bin/bash
#
# Make the packages that users install, into build/packages: the Django
# package's wheel and source, and the React package's tarball.  Then install
# each where nothing of this tree is, and use it.

set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
made=$root/build/packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$root/scripts/deps.sh" build newest react
rm -rf "$made"
mkdir -p "$made"

# a build leaves files
cp -R "$root/clients/django" "$work/django"
cp "$root/LICENSE" "$work/django/"
/usr/bin/python3 -m venv "$work/build"
"$work/build/bin/pip" install -q --disable-pip-version-check build
"$work/build/bin/python" -m build -q --outdir "$made" "$work/django"
(cd "$root/clients/react" && npm pack --silent --pack-destination "$made")
ls -l "$made"

/usr/bin/python3 -m venv "$work/user"
wheel=$(find "$made" -name '*.whl')
"$work/user/bin/pip" install -q --disable-pip-version-check "${wheel}[psycopg]"
(cd "$work" && "$work/user/bin/python" -c '
from importlib.metadata import version
from importlib.resources import files
import django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "session_manager"])
django.setup()
import session_manager.services, session_manager.authentication, session_manager.urls
assert (files("session_manager") / "py.typed").is_file()
print("django-session-manager", version("django-session-manager"), "is installed and imported")')

mkdir "$work/app"
cd "$work/app"
printf '{ "private": true, "type": "module" }\n' >package.json
npm install --silent --no-audit --no-fund "$made"/*.tgz react@19 next@15
node -e '
import("@session-manager/react").then((package_) => {
  if (typeof package_.useSession !== "function") throw new Error("useSession is not exported");
  console.log("@session-manager/react is installed and imported");
})'
for file in index.d.ts index.js next/index.d.ts next/index.js; do
  [ -s "node_modules/@session-manager/react/dist/$file" ] || { printf 'packages: dist/%s is not there\n' "$file" >&2; exit 1; }
done
