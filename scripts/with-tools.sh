#!/bin/sh
# with-tools.sh PURPOSE COMMAND…: installs what COMMAND needs (system programs where it may, node modules, the bundle),
# then runs it with the pinned Node.js. PURPOSE is `demo`, `test`, `night`, `bench`, `package` or
# `selinux`. Needs git, Node.js 20 or later and npm.
set -eu
purpose=$1
shift
cd "$(dirname "$0")/.."
say() { printf '%s\n' "$*" >&2; }

# The sbin directories are not on every user's path, and half of the programs live there.
PATH="$PWD/node_modules/.bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

# program:Debian package:EL package
wanted='ip:iproute2:iproute nft:nftables:nftables nsenter:util-linux:util-linux bird:bird2:bird haproxy:haproxy:haproxy
socat:socat:socat curl:curl:curl systemd-sysusers:systemd:systemd dbus-daemon:dbus:dbus-daemon
ps:procps:procps-ng openssl:openssl:openssl'
if [ "$purpose" != selinux ]; then
  # What the demo shows around the cluster: a name server, a CA, and sshd, which the firewall leaves open.
  wanted="$wanted named:bind9:bind dig:bind9-dnsutils:bind-utils pebble:pebble: sshd:openssh-server:openssh-server"
fi
if [ "$purpose" = night ]; then
  wanted="$wanted promtool:prometheus: firewalld:firewalld:firewalld"
fi
if [ "$purpose" = bench ]; then
  wanted="$wanted setpriv:util-linux:util-linux ping:iputils-ping:iputils keepalived:keepalived:keepalived
monit:monit:monit wrk:wrk:wrk"
fi
if [ "$purpose" = test ] || [ "$purpose" = night ]; then
  wanted="$wanted serf:serf:
setpriv:util-linux:util-linux ssh:openssh-client:openssh-clients
dnsmasq:dnsmasq-base:dnsmasq ping:iputils-ping:iputils msmtp:msmtp:msmtp arping:iputils-arping:iputils
man:man-db:man-db groff:groff-base:groff-base
python3:python3:python3 chromium:chromium:chromium faketime:faketime:libfaketime rpmbuild:rpm:rpm-build dnf:dnf:dnf
createrepo_c:createrepo-c:createrepo_c rpmlint:rpmlint:rpmlint"
fi
if [ "$purpose" = package ]; then
  # The aarch64 package runs in qemu's user mode, with Debian's libraries of that architecture.
  wanted="$wanted setpriv:util-linux:util-linux ssh:openssh-client:openssh-clients ping:iputils-ping:iputils
rpmbuild:rpm:rpm-build dnf:dnf:dnf createrepo_c:createrepo-c:createrepo_c rpmlint:rpmlint:rpmlint
rpm2cpio:rpm2cpio:rpm cpio:cpio:cpio gpg:gnupg:gnupg2 qemu-aarch64-static:qemu-user-static:
/usr/aarch64-linux-gnu/lib/libstdc++.so.6:libstdc++6-arm64-cross:"
fi
if [ "$purpose" = selinux ] || [ "$purpose" = test ]; then
  # Debian compiles its policy when it is installed, and does not load it on this machine.
  wanted="$wanted semodule:policycoreutils: matchpathcon:selinux-utils: sesearch:setools: rpmbuild:rpm:
rpm2cpio:rpm2cpio: cpio:cpio: patchelf:patchelf: sshd:openssh-server:
mke2fs:e2fsprogs: depmod:kmod: createrepo_c:createrepo-c:
/usr/share/selinux/default/base.pp.bz2:selinux-policy-default:"
fi
deb='' el='' names=''
for each in $wanted; do
  program=${each%%:*} rest=${each#*:}
  { command -v "$program" || [ -e "$program" ]; } >/dev/null 2>&1 && continue
  names="$names $program" deb="$deb ${rest%%:*}" el="$el ${rest#*:}"
done
if [ -n "$names" ] && [ "$(id -u)" = 0 ]; then
  if command -v apt-get >/dev/null 2>&1; then
    say "installing:$deb"
    # What is installed for a demo must not start serving on this machine.
    guard=/usr/sbin/policy-rc.d
    if [ -e $guard ]; then
      guard=''
    else
      printf '#!/bin/sh\nexit 101\n' >$guard
      chmod 755 $guard
      trap 'rm -f "$guard"' EXIT INT TERM
    fi
    log=$(mktemp)
    # shellcheck disable=SC2086
    {
      apt-get update -qq &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $deb
    } >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; say "apt-get could not install:$deb"; }
    rm -f "$log" "$guard"
    trap - EXIT INT TERM
  elif command -v dnf >/dev/null 2>&1; then
    say "installing:$el"
    # BIRD and a few others come from EPEL.
    # shellcheck disable=SC2086
    { dnf -y -q install epel-release || true; dnf -y -q install $el; } >&2 || say "dnf could not install:$el"
  fi
elif [ -n "$names" ]; then
  say "missing programs:$names"
  say "as root: apt-get install$deb   (or: dnf install$el)"
fi

if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  say 'installing node modules'
  # Exactly what the lock file says. Not `npm ci`: it removes all that is installed, so each change of one package would
  # take the whole download.
  npm install --no-save --no-audit --no-fund --loglevel=error >&2
  touch node_modules/.package-lock.json
fi
if [ -z "${LAB_UML:-}" ] && { [ "$purpose" = selinux ] || [ "$purpose" = test ]; }; then
  # Without it, only the test that needs it fails.
  sh scripts/user-mode-linux.sh node_modules/.cache/user-mode-linux || true
fi
newer() { find src package.json scripts/*.ts -newer dist/bornemisza.mjs -print 2>/dev/null | head -n 1; }
stale() { [ ! -e dist/daemon.mjs ] || [ ! -e dist/app.mjs ] || [ -n "$(newer)" ]; }
if stale; then node scripts/build.ts >&2; fi
node test/standin/bundle.ts
# Each test file is a process of its own, and most of what a small one takes is to compile what all of them load.
export NODE_COMPILE_CACHE="$PWD/node_modules/.cache/compiled"
exec "$@"
