#!/bin/sh
# Writes fields.txt beside this file: kind, path, and the versions of Kubernetes that have it. Needs Go and its proxy.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cp "$here/fields.go" "$folder/"
cd "$folder"
for version in 34.3 35.3 36.1 37.2; do
    rm -f go.mod go.sum
    go mod init fields 2> go.log
    go get "k8s.io/api@v0.$version" "k8s.io/client-go@v0.$version" 2> go.log || { cat go.log; exit 1; }
    go mod tidy 2> go.log
    go run . | sed "s/\$/\t1.${version%.*}/" >> found
done
sort found | awk -F '\t' '
    $1 FS $2 != last { if (last) print line; last = $1 FS $2; line = last FS $3; next }
    { line = line " " $3 }
    END { print line }' > "$here/fields.txt"
