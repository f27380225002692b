# bash completion for weir.

_weir()
{
    local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=
    if [[ $COMP_CWORD == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -W "run ledger top stats export help --help --version" -- "$current")
        return
    fi
    case $before in
    --state) words="started done failed left" ;;
    -s | --sort) words="name kind depth in out drop blocked starved wait service workers" ;;
    -p | --pid)
        words=$(weir stats --json 2>/dev/null |
            grep -o '"pid": *[0-9]*, *"uid"' | tr -dc '0-9\n')
        ;;
    -A | --address) words="127.0.0.1 0.0.0.0 ::1 ::" ;;
    -d | --interval | -f | --filter | -w | --window | -P | --port) return ;;
    *)
        case ${COMP_WORDS[1]} in
        run)
            if [[ $current != -* ]]; then
                mapfile -t COMPREPLY < <(compgen -c -f -- "$current")
                return
            fi
            words="--input --null --csv --tsv --header --jobs --rate --delay --max-load --memory --mem-per-job --retries --backoff --retry-on --ok --timeout --kill-after --halt --keep-order --line-buffer --window --tag --results --ungroup --shell --replace --ledger --resume --retry-failed --dry-run --quiet --progress --no-progress --total --name --help"
            ;;
        ledger)
            words="--list --tsv --json --state --help"
            if [[ $current != -* ]]; then
                mapfile -t COMPREPLY < <(compgen -f -- "$current")
                return
            fi
            ;;
        top) words="--interval --pid --filter --sort --reverse --list --window --all-users --once --json --no-color --help" ;;
        stats) words="--json --openmetrics --pid --all-users --help" ;;
        export) words="--port --address --pid --window --all-users --help" ;;
        help) words="run ledger top stats export" ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _weir weir
