# What the edge is measured beside: nginx as a plain TLS proxy with the edge's certificate, and a
# target for both, which is nginx as well.

start_comparison() {
    mkdir -p "$DIR/nginx/temp"
    PARTS+=(target nginx)
    start_target
    start_nginx
}

start_target() {
    step "starting the target" "$DIR/logs/target.log"
    launch_nginx target <"$BED_HOME/manifests/nginx-target.conf"
    wait_until 10 target curl --fail --silent "http://127.0.0.1:$(port target)/"
}

start_nginx() {
    step "starting nginx" "$DIR/logs/nginx.log"
    local entry
    for entry in tls.crt tls.key; do
        kube get secret edge-mtls --namespace "$EDGE_NAMESPACE" --output "jsonpath={.data.${entry/./\\.}}" |
            base64 --decode >"$DIR/pki/nginx-$entry"
    done
    launch_nginx nginx <"$BED_HOME/manifests/nginx.conf"
    wait_until 10 nginx curl --fail --silent --cacert "$DIR/pki/demo.crt" "https://localhost:$(port nginx)/"
}

# It runs in a folder of its own, with the configuration from the standard input.
launch_nginx() { # NAME
    sed -e "s/TARGET_PORT/$(port target)/" -e "s/NGINX_PORT/$(port nginx)/" -e "s|FOLDER|$DIR|" >"$DIR/nginx/$1.conf"
    launch "$1" "$NGINX/usr/sbin/nginx" -p "$DIR/nginx" -c "$1.conf" -g "daemon off; error_log stderr; pid $1.pid;"
}

write_comparison_env() {
    cat <<END
export NGINX_URL='https://localhost:$(port nginx)'
export NGINX_PID='$(pid_of nginx)'
export NGINX_VERSION='$NGINX_VERSION'
export TARGET_PORT='$(port target)'
export TARGET_PID='$(pid_of target)'
END
}
