import java.io.FileInputStream;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.regex.Pattern;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/** Reads where groups go on, as an operator would: properties file, alias of the source, pattern of groups, how often. */
public class Translate {
    public static void main(String[] args) throws Exception {
        Properties file = new Properties();
        try (FileInputStream in = new FileInputStream(args[0])) {
            file.load(in);
        }
        Map<String, Object> properties = new HashMap<>();
        file.forEach((key, value) -> properties.put((String) key, value));
        for (int i = 0; i < Integer.parseInt(args[3]); i++) {
            long begun = System.nanoTime();
            var groups = RemoteClusterUtils.translateOffsets(properties, args[1], Pattern.compile(args[2]), Duration.ofMinutes(2));
            double seconds = (System.nanoTime() - begun) / 1e9;
            long offsets = 0, sum = 0;
            for (var group : groups.values()) {
                for (var offset : group.values()) {
                    offsets++;
                    sum += offset.offset();
                }
            }
            System.out.println("seconds=" + seconds + " groups=" + groups.size() + " offsets=" + offsets + " sum=" + sum);
        }
    }
}
