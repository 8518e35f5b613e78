#!/bin/bash
# curl as people use it in scripts: lines cut apart by hand. It does not come back by itself, so the loop does.
url=$1
id=
while :; do
    while IFS= read -r line; do
        case $line in
        'id: '*) id=${line#id: } ;;
        'data: '*) [[ $line =~ \"number\":([0-9]+) ]] && printf '{"id":"%s","number":%s}\n' "${id//\"/\\\"}" "${BASH_REMATCH[1]}" ;;
        esac
    done < <(if [ -n "$id" ]; then exec curl -sN -H "Last-Event-ID: $id" "$url"; else exec curl -sN "$url"; fi)
    sleep 0.2 # while nobody listens
done
