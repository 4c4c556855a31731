#!/bin/sh
# Build a root at $1 from this machine's /usr and the Python at $2, bind-mount the lines of $3, and run the remaining
# arguments in the mount namespace of the caller.
#
# The folder shims/ has the base image's `python` and `pip`. Its `apt-get` does nothing: this machine has the packages.
set -e
root=$1; python=$2; mounts=$3; shift 3
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir usr etc proc dev tmp opt opt/match app requirements data shims
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
mount --rbind /usr usr
mount --rbind /etc etc
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=1777 tmpfs tmp
if [ "$python" != /usr ]; then mount --bind "$python" usr/local; fi
printf '#!/bin/sh\nexec python3 "$@"\n' > shims/python
printf '#!/bin/sh\nexec python3 -m pip "$@"\n' > shims/pip
printf '#!/bin/sh\n' > shims/apt-get
chmod 755 shims/*
for folder in usr etc; do mount -o remount,bind,ro "$folder"; done
printf '%s\n' "$mounts" | while read -r how from to; do
  if [ -n "$how" ]; then mount --bind "$from" ".$to"; fi
  if [ "$how" = ro ]; then mount -o remount,bind,ro ".$to"; fi
done
mount -o remount,ro "$root"
exec "$@"
