import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

import org.apache.sysds.api.DMLScript;

/**
 * Runs scripts of DML one after the other in one virtual machine: java -cp ... RunScripts.java a.dml b.dml
 * The arguments of a.dml, name=value, stand in a.dml.args, a line each, if there are some.
 * Beside a.dml it leaves a.dml.done: empty, or the error.
 */
public class RunScripts {
    public static void main(String[] scripts) throws Exception {
        for (String script : scripts) {
            String error = "";
            PrintStream screen = System.out;
            try (PrintStream printed = new PrintStream(script + ".out")) {
                System.setOut(printed);
                DMLScript.executeScript(command(script));
            } catch (Throwable failure) {
                StringBuilder text = new StringBuilder();
                for (Throwable each = failure; each != null; each = each.getCause()) {
                    text.append(each.getClass().getSimpleName()).append(": ").append(each.getMessage()).append("\n");
                }
                error = text.toString();
            } finally {
                System.setOut(screen);
            }
            Files.writeString(Path.of(script + ".done"), error);
        }
        System.exit(0); // threads of its pools would keep the machine up
    }

    private static String[] command(String script) throws Exception {
        List<String> words = new ArrayList<>(List.of("-exec", "singlenode", "-f", script));
        Path arguments = Path.of(script + ".args");
        if (Files.exists(arguments)) {
            words.add("-nvargs");
            words.addAll(Files.readAllLines(arguments));
        }
        return words.toArray(new String[0]);
    }
}
