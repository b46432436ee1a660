# shellcheck shell=bash For scripts that measure a GPU: ends with a sentence where there is none,
# unless `--device cpu` is among the arguments.
case " $* " in
    *" --device cpu "*) ;;
    *)
        if [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null; then
            echo 'error: this machine has no NVIDIA driver; ARGS="--device cpu" tries the script without a GPU.' >&2
            exit 1
        fi
        ;;
esac
