# Obtains what the bed is made of: built or downloaded once, at pinned versions, and
# kept in a cache that outlives the bed.

# shellcheck source=../versions
. "$BED_HOME/versions"

CACHE=${CREDENCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credence}
KUBERNETES=$CACHE/kubernetes-$KUBERNETES_VERSION
ETCD=$CACHE/etcd-$ETCD_VERSION
HELM=$CACHE/helm-$HELM_VERSION
PROMTOOL=$CACHE/promtool-$PROMTOOL_VERSION
GLUA=$CACHE/glua-$GLUA_VERSION
KAFKA=$CACHE/kafka-$KAFKA_VERSION
# What signs webhooks in tests: the senders' own libraries, by the digest of their versions.
SIGNERS=$CACHE/signers-$(cat "$PROJECT"/tests/signers/{requirements.txt,package.json} | sha256sum | cut -c1-12)

obtain_parts() {
    mkdir -p "$CACHE"
    need openssl openssl
    need jq jq
    need curl curl
    need java default-jre-headless
    need redis-server redis-server
    part "$KUBERNETES" go "building kube-apiserver, kube-controller-manager and kubectl $KUBERNETES_VERSION" build_kubernetes
    part "$ETCD" go "building etcd $ETCD_VERSION" build_etcd
    part "$HELM" go "building helm $HELM_VERSION" build_helm
    part "$PROMTOOL" go "building promtool $PROMTOOL_VERSION" build_promtool
    part "$GLUA" go "building glua $GLUA_VERSION" build_glua
    part "$SIGNERS" python "installing the libraries that sign webhooks" install_signers
    part "$KAFKA" mvn "downloading Kafka $KAFKA_VERSION" download_kafka
}

# A part is made beside its place and moved there whole: what is in the cache is complete.
part() { # FOLDER TOOL TEXT MAKER
    [ -d "$1" ] && return
    case $2 in
    go) need_go ;;
    mvn) need mvn maven ;;
    python) need python3 python3-venv && need npm npm ;;
    esac
    local unfinished=$1.unfinished
    rm -rf "$unfinished"
    mkdir "$unfinished"
    with_progress "$3" "$1.log" "$4" "$unfinished"
    mv "$unfinished" "$1"
}

build_kubernetes() { # INTO
    local version=k8s.io/component-base/version major minor
    IFS=. read -r major minor _ <<<"$KUBERNETES_VERSION"
    go_build kubernetes "$1" \
        "-X $version.gitVersion=v$KUBERNETES_VERSION -X $version.gitMajor=$major -X $version.gitMinor=$minor"
}

build_etcd() { # INTO
    go_build etcd "$1"
    # A program built from .../server/v3 is named after its folder.
    mv "$1/server" "$1/etcd"
}

build_helm() { # INTO
    go_build helm "$1" "-X helm.sh/helm/v4/internal/version.version=v$HELM_VERSION"
}

# Without the clients of every cloud: rules are checked with none of them.
build_promtool() { # INTO
    go_build promtool "$1" "" -tags=remove_all_sd
}

build_glua() { # INTO
    go_build lua "$1"
}

go_build() { # FOLDER INTO [LINKER FLAGS] [FLAGS...]
    (cd "$BED_HOME/$1" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" "${@:4}" -o "$2/" tool)
}

download_kafka() { # INTO
    mvn --batch-mode --quiet --file "$BED_HOME/kafka/pom.xml" \
        -Dkafka.version="$KAFKA_VERSION" -Dslf4j.version="$SLF4J_VERSION" \
        dependency:copy-dependencies -DoutputDirectory="$1/libs"
}

need_go() {
    command -v go >/dev/null || fail "Go is not installed, and the Kubernetes API server is built with it" \
        "install Go 1.26 or later (1.21 or later is enough where it may download its own toolchain)"
}

# A command that is missing is installed where that is possible without asking.
need() { # COMMAND DEBIAN PACKAGE
    command -v "$1" >/dev/null && return
    local root=()
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    if command -v apt-get >/dev/null && "${root[@]}" true 2>/dev/null; then
        with_progress "installing $2" "$CACHE/apt.log" install_package "$2"
    fi
    command -v "$1" >/dev/null || fail "$1 is not installed" "install it (in Debian the package is $2)"
}

install_package() { # PACKAGE
    "${root[@]}" apt-get update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1"
}

# Only its interpreter is used, and that finds its libraries wherever the folder is moved to.
install_signers() { # FOLDER
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$PROJECT/tests/signers/requirements.txt"
    cp "$PROJECT/tests/signers/package.json" "$1/"
    npm install --prefix "$1" --no-fund --no-audit --no-update-notifier --silent
}
