# What a job sees of the machine it runs on:  rnx run sh -c "$(cat examples/look_around.sh)"
set -- /proc/[0-9]*
read -r inside outside count </proc/self/uid_map
echo "I am process $$ and can see $# of them; my host is called $(uname -n)"
echo "I am user $(id -u) here, which is user $outside to the machine, with capabilities $(sed -n 's/^CapEff:.//p' /proc/self/status)"
echo "I start in $(pwd), where there are $(ls -A | wc -l) files; in /tmp there are $(ls -A /tmp | wc -l)"
echo "I try to write to /usr: $(touch /usr/joblet 2>&1)"
echo "I try to read the passwords: $(wc -c </etc/shadow) bytes"
