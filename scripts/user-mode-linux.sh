#!/bin/sh
# user-mode-linux.sh DIRECTORY: unpacks there the User-Mode Linux of a later Debian with the C library it needs, for a
# machine whose own Debian has none that runs programs without ptrace. Nothing is installed. apt checks the signatures;
# mirror and keyring are those of this machine's Debian.
set -eu
to=$1
say() { printf '%s\n' "$*" >&2; }
# The answer of the program, not its version: on some processors one that needs ptrace panics at its first process.
able() { "$1" --help 2>/dev/null | grep -q '^seccomp='; }

if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
  say 'the SELinux machine needs Debian on x86_64: User-Mode Linux and what runs in it are packages of Debian'
  exit 1
fi
if own=$(command -v linux.uml) && able "$own"; then
  mkdir -p "$to"
  ln -sfn /usr "$to/usr"
  exit
fi
able "$to/usr/bin/linux.uml" && exit
rm -rf "$to"
mkdir -p "$to/apt/lists/partial" "$to/apt/archives/partial"
to=$(realpath "$to")
mirror=$(apt-get indextargets --format '$(REPO_URI) $(SIGNED_BY)' \
  'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | head -n 1)
uri=${mirror%% *} keyring=${mirror#* }
case $keyring in /*) ;; *) keyring=/usr/share/keyrings/debian-archive-keyring.gpg ;; esac
: >"$to/apt/status"
private() {
  apt-get -qq -o "Dir::Etc::SourceList=$to/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::Etc::PreferencesParts=/dev/null -o "Dir::State=$to/apt" -o "Dir::State::Lists=$to/apt/lists" \
    -o "Dir::State::Status=$to/apt/status" -o "Dir::Cache=$to/apt" -o Acquire::Languages=none \
    -o APT::Sandbox::User=root -o APT::Architecture=amd64 -o APT::Architectures::=amd64 "$@"
}
# Debian's next release, else where packages come first.
for suite in testing unstable; do
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" $suite >"$to/apt/sources.list"
  (cd "$to/apt" && private update && private download user-mode-linux libc6) >"$to/apt/log" 2>&1 || continue
  for package in "$to"/apt/*.deb; do dpkg-deb --extract "$package" "$to"; done
  rm -rf "$to/apt/lists" "$to"/apt/*.deb "$to"/apt/*.bin "$to/usr/share" "$to/usr/lib/x86_64-linux-gnu/gconv"
  library=$to/usr/lib/x86_64-linux-gnu
  patchelf --set-interpreter "$library/ld-linux-x86-64.so.2" --force-rpath --set-rpath "$library" \
    "$to/usr/bin/linux.uml"
  able "$to/usr/bin/linux.uml" && exit
  say "User-Mode Linux of Debian $suite has no seccomp= option, or does not start here"
done
tail -n 5 "$to/apt/log" >&2
say 'could not get User-Mode Linux (packages user-mode-linux and libc6 of Debian testing or unstable);' \
  'LAB_UML=DIRECTORY names one (CONTRIBUTING.md)'
exit 1
